"""`equipoise diagnose`: what each modality does in a finished run, in words, numbers and pictures."""

from __future__ import annotations

import argparse
from pathlib import Path

from equipoise.cli.console import add_json_flag, print_json

EXAMPLES = """\
examples:
  equipoise diagnose runs/mosi-AGSSMoE-ags
  equipoise diagnose runs/mosi-AGSSMoE-ags --with-controls     (also trains each modality alone, once)
  equipoise diagnose runs/mosi-AGSSMoE-ags --maps --robustness
  equipoise diagnose models/mosi-ags --data data/mosi

What was computed is kept beside the report and not computed again."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "diagnose",
        help="audit a finished run: what does each modality do in it?",
        epilog=EXAMPLES,
        description="Audit the model of a run: a verdict in words, with a page, Markdown and JSON.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run_dir", metavar="RUN_DIR", help="what `equipoise train` or `equipoise export` wrote")
    parser.add_argument("--data", metavar="DIR", help="another dataset like it, or where it is now")
    parser.add_argument("--out", metavar="DIR", help="for the report (RUN_DIR/diagnosis)")
    parser.add_argument("--split", default="test", metavar="NAME", help="train, valid or test (test)")
    parser.add_argument("--with-controls", action="store_true", help="also train each alone, and all without balancer")
    parser.add_argument("--maps", action="store_true", help="draw what the model makes of samples (t-SNE), with probes")
    parser.add_argument("--robustness", action="store_true", help="measure what missing and noisy inputs cost")
    add_json_flag(parser)


def run(args: argparse.Namespace) -> int:
    """Audit, write, print."""
    from equipoise.cli.audits import FOLDER, diagnose
    from equipoise.diagnostics.sections import sections_of
    from equipoise.report.diagnosis_plots import plot_sections

    folder = Path(args.run_dir)
    out = Path(args.out) if args.out else folder / FOLDER
    report = diagnose(
        folder,
        args.data,
        args.split,
        out,
        controls=args.with_controls,
        maps=args.maps,
        robustness=args.robustness,
    )
    page = report.to_html(out / "report.html")
    (out / "report.md").write_text(report.to_markdown(), encoding="utf-8")
    (out / "report.json").write_text(report.to_json(), encoding="utf-8")
    plot_sections(sections_of(report.to_dict()), out / "pictures")
    if args.json:
        print_json(report.to_dict())
        return 0
    print(f"{report.title}\n")
    for sentence in report.verdict:
        print(f"- {sentence}")
    print(f"\nReport: {page} (and report.md, report.json, pictures)")
    return 0
