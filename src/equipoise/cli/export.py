"""`equipoise export`: a finished run becomes a folder that can be published, with a model card."""

from __future__ import annotations

import argparse
from pathlib import Path

from equipoise.cli.console import add_json_flag, print_json, print_table

EXAMPLES = """\
examples:
  equipoise export runs/mosi-AGSSMoE-ags --to models/mosi-ags
  equipoise export runs/mosi-AGSSMoE-ags --to models/mosi-ags --seed 3 --license cc-by-4.0
  equipoise export runs/mosi-AGSSMoE-ags --to models/mosi-ags --push lab/mosi-ags"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "export",
        help="save a trained model with its model card",
        epilog=EXAMPLES,
        description="Save the model of a run, with everything that is needed to use it and a model card.\n"
        "Of several seeds the one with the best validation score is saved; the card tells of all.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run_dir", metavar="RUN_DIR", help="what `equipoise train` wrote, for one seed or several")
    parser.add_argument("--to", required=True, metavar="DIR", help="the folder to make")
    parser.add_argument("--seed", type=int, metavar="N", help="whose weights (the best by validation)")
    parser.add_argument("--data", metavar="DIR", help="where the dataset is now (where it was in training)")
    parser.add_argument("--license", metavar="ID", help="of the weights, for the card, such as `cc-by-4.0`")
    parser.add_argument("--overwrite", action="store_true", help="replace a saved model that is there")
    parser.add_argument("--push", metavar="REPO", help="also upload it to the Hugging Face Hub, `owner/name`")
    add_json_flag(parser)


def run(args: argparse.Namespace) -> int:
    """Save, upload if asked, and print what each modality contributes."""
    from equipoise.report.contributions import contribution_table
    from equipoise.report.export import export_run
    from equipoise.report.tables import to_records
    from equipoise.training.hub import push_model

    to = Path(args.to)
    made = export_run(args.run_dir, to, seed=args.seed, data=args.data, license=args.license, overwrite=args.overwrite)
    page = push_model(to, args.push) if args.push else None
    table = contribution_table(made["contributions"])
    if args.json:
        told = {"folder": str(to), "seed": made["seed"], "seeds": made["seeds"], "page": page}
        print_json({**told, "contributions": to_records(table)["rows"]})
        return 0
    print_table(table)
    print(f"\nWeights of seed {made['seed']}. Saved model: {to}")
    if page:
        print(f"Pushed to {page} (a repository that was not there is private).")
    return 0
