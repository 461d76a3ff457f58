"use strict";
// Draws the learning curves, in the colours that the style sheet has at the moment.
(() => {
  const specs = JSON.parse(document.getElementById("curve-specs").textContent);
  const config = { displaylogo: false, displayModeBar: false, responsive: true };
  const paint = () => {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const axis = { gridcolor: colour("--line"), linecolor: colour("--line"), zerolinecolor: colour("--muted") };
    specs.forEach((spec, place) => {
      const data = spec.data.map((trace) => {
        const own = colour("--c" + (trace.meta + 1));
        return {
          ...trace,
          line: { ...trace.line, color: own },
          marker: { ...trace.marker, color: own, line: { ...trace.marker.line, color: own } },
          error_y: { ...trace.error_y, color: own },
        };
      });
      const layout = {
        ...spec.layout,
        paper_bgcolor: "rgba(0,0,0,0)",
        plot_bgcolor: "rgba(0,0,0,0)",
        font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: colour("--ink") },
        xaxis: { ...spec.layout.xaxis, ...axis },
        yaxis: { ...spec.layout.yaxis, ...axis },
        hoverlabel: { ...spec.layout.hoverlabel, bgcolor: colour("--soft"), font: { color: colour("--ink") } },
      };
      Plotly.react(document.getElementById("curve-" + (place + 1)), data, layout, config);
    });
  };
  paint();
  for (const query of ["(prefers-color-scheme: dark)", "print"]) {
    matchMedia(query).addEventListener("change", paint);
  }
})();
