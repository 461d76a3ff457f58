"""A report -> the files of its folder, each written whole or not at all."""

from __future__ import annotations

from pathlib import Path

from datacreate.errors import UsageError
from datacreate.files import replace_file, storage_error
from datacreate.reporting.as_csv import cells_csv
from datacreate.reporting.as_json import as_json
from datacreate.reporting.as_markdown import markdown
from datacreate.reporting.page import write_page
from datacreate.reporting.tables import Report


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write all files into `folder`, made if need be; what is there of an older report is replaced.

    Returns their paths. Raises UsageError if there is a file in the folder's place, StorageError if the
    disk does not take them.
    """
    texts = {
        "report.md": markdown(report),
        "in_distribution.csv": cells_csv(report, "in"),
        "out_of_distribution.csv": cells_csv(report, "out"),
        "report.json": as_json(report),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UsageError(
            f"{folder}: there is a file where a folder should be; choose another --out"
        ) from None
    except OSError as error:
        raise storage_error(folder, error) from None
    for name, text in texts.items():
        # Half a character, which no UTF-8 holds, is spelled as JSON spells it.
        replace_file(folder / name, text.encode("utf-8", "backslashreplace").decode("utf-8"))
    page = folder / "report.html"
    write_page(report, page)
    return [*(folder / name for name in texts), page]
