"""The raw engine's speed, for comparison: vLLM alone, same prompts and sampling, no grammar, fixed length.

Run by creation.py in a process of its own. Reads {"model", "prompts" (token ids), "sampling",
"in_flight", "length", "arguments"} from stdin, prints {"tokens_per_second"} of the steady state to stdout.
"""

from __future__ import annotations

import json
import sys
import time


def main() -> None:
    job = json.load(sys.stdin)
    from vllm import LLM, SamplingParams
    from vllm.sampling_params import RequestOutputKind

    engine = LLM(
        job["model"], seed=0, enable_prefix_caching=True, disable_log_stats=True, **job["arguments"]
    ).llm_engine
    params = SamplingParams(
        **{**job["sampling"], "max_tokens": job["length"]},
        ignore_eos=True,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )
    prompts = iter(enumerate(job["prompts"]))
    finished: list[tuple[float, int]] = []
    # Staggered lengths at the start, so that requests do not all end in the same step.
    for index, prompt in (next(prompts) for _ in range(job["in_flight"])):
        first = params.clone()
        first.max_tokens = max(8, job["length"] * (index + 1) // job["in_flight"])
        engine.add_request(str(index), {"prompt_token_ids": prompt}, first)
    exhausted = False
    while not exhausted:
        for output in engine.step():
            finished.append((time.monotonic(), len(output.outputs[0].token_ids)))
            following = next(prompts, None)
            if following is None:
                exhausted = True
                break
            engine.add_request(str(following[0]), {"prompt_token_ids": following[1]}, params)
    warm = finished[job["in_flight"]][0]
    tokens = sum(number for at, number in finished if at > warm)
    sys.stderr.flush()
    print("\n" + json.dumps({"tokens_per_second": tokens / (finished[-1][0] - warm)}))


if __name__ == "__main__":
    main()
