#!/usr/bin/env python
"""Calibrate a bundle's risk and referral threshold, or a site's disc and cup thresholds.

    python jobs/calibrate.py --bundle runs/mine --set "refuge:data/REFUGE?split=train"
    python jobs/calibrate.py --bundle runs/mine --set "rim-one-dl:data/RIM-ONE-DL" --precropped --specificity 0.9
    python jobs/calibrate.py --bundle runs/mine --set "manifest:data/our-eyes.csv" --structures

The risk is fitted to pictures with glaucoma labels. Do this last: training or adapting a network of
the bundle removes the risk. With --structures the thresholds of disc and cup are fitted to at least
10 pictures in which a site's own experts outlined both. A threshold changes only if cross-validation
shows a gain. The risk, which was fitted to the old outlines, is removed.

With a site file (docs/site.toml), --bundle and --precropped may be left out.

Exit codes: 0 the bundle is calibrated; 2 bad configuration; 4 the labels show no gain, and the
bundle stays as it is.
"""  # noqa: E501

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fundus import site
from fundus.anatomy.risk import RiskModel
from fundus.anatomy.scores import Summary
from fundus.datasets.public import open_set
from fundus.errors import ConfigurationError
from fundus.evaluation import calibration, structures
from fundus.evaluation.calibration import Report
from fundus.models import bundle as bundles
from fundus.models.bundle import Bundle
from fundus.models.predictor import Predictor

REFUSED = 4


@dataclass(frozen=True)
class Config:
    """The checked command line."""

    bundle: str
    """The bundle to calibrate; its risk model, if any, is replaced."""
    set: str
    """The labelled set, `layout:path?key=value`."""
    specificity: float
    """Share of the healthy eyes that must not be referred."""
    precropped: bool
    """The pictures are disc crops already; there is no detection."""
    structures: bool = False
    """Fit the thresholds of disc and cup instead of the risk."""

    def __post_init__(self) -> None:
        if not 0 < self.specificity < 1:
            raise ConfigurationError(
                f"--specificity {self.specificity}: give a share between 0 and 1"
            )


def run(config: Config) -> tuple[Bundle, Report]:
    """Calibrate the risk of the bundle, in its folder.

    Returns:
        The calibrated bundle and the figures of cross-validation.

    Raises:
        ConfigurationError: the bundle or the set cannot be used.
    """
    bundle = bundles.load(config.bundle)
    labelled = open_set(config.set)
    name = ", ".join(sorted({sample.set for sample in labelled.samples}))
    model, report = calibration.calibrate(
        labelled,
        Predictor(bundle),
        name=name,
        specificity=config.specificity,
        precropped=config.precropped,
    )
    calibrated = replace(bundle, risk=model)
    bundles.save(calibrated, config.bundle)
    return calibrated, report


def run_structures(config: Config) -> tuple[Bundle, structures.Report]:
    """Fit the thresholds of disc and cup in the bundle's folder, if that helps.

    Returns and raises as `run`.
    """
    bundle = bundles.load(config.bundle)
    eyes = structures.look(open_set(config.set), Predictor(bundle), precropped=config.precropped)
    thresholds, report = structures.calibrate(structures.Table(eyes, bundle.thresholds))
    if not report.helps:
        return bundle, report
    calibrated = replace(bundle, thresholds=thresholds, risk=None)
    bundles.save(calibrated, config.bundle)
    return calibrated, report


def readable_structures(report: structures.Report) -> str:
    """The report as lines for people."""
    lines = [
        f"{report.eyes} eyes; by cross-validation, {structures.FOLDS} folds, with 95 % intervals:"
    ]
    for each in (report.disc, report.cup):
        change = f"threshold {each.before} to {each.after}" if each.helps else "stays as it is"
        lines.append(
            f"  {each.name}: {change}; Dice {_cell(each.dice_before)} to {_cell(each.dice_after)},"
            f" gain {_cell(each.gain)}"
        )
    lines.append(f"  vCDR MAE {_cell(report.mae_before)} to {_cell(report.mae_after)}")
    return "\n".join(
        [*lines, f"  vCDR bias {_cell(report.bias_before)} to {_cell(report.bias_after)}"]
    )


def readable(model: RiskModel, report: Report) -> str:
    """The report as lines for people."""
    lines = [
        f"{model.set}: {model.healthy} healthy eyes and {model.glaucoma} with glaucoma;"
        f" {report.unmeasured} without a risk left out",
        f"by cross-validation, {calibration.FOLDS} folds, with 95 % intervals:",
        f"  AUC {_cell(report.auc)}, of the bare vCDR {_cell(report.auc_vcdr)}",
        f"  Brier score {_cell(report.brier)}",
        f"  referred at specificity {model.specificity}: sensitivity {_cell(report.sensitivity)},"
        f" specificity {_cell(report.specificity)}",
    ]
    for each in report.bins:
        if each.risk is not None:
            lines.append(
                f"  risk {each.low} to {each.high}: mean {each.risk:.3f},"
                f" glaucoma {_cell(each.glaucoma)} of {each.glaucoma.count} eyes"
            )
    return "\n".join([*lines, f"referral threshold: risk {model.threshold:.4f}"])


def _cell(summary: Summary) -> str:
    ends = (summary.value, summary.low, summary.high)
    value, low, high = ("-" if end is None else f"{end:.3f}" for end in ends)
    return f"{value} [{low}, {high}]"


def parse(arguments: Sequence[str] | None = None) -> Config:
    """Parse and check the command line."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0],
        epilog=(__doc__ or "").split("\n", 1)[1],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--bundle", metavar="URI", help="the bundle, which is changed in place")
    parser.add_argument("--set", required=True, metavar="SPEC", help="layout:path?key=value")
    parser.add_argument("--specificity", type=float, default=0.95, help="default: 0.95")
    parser.add_argument(
        "--precropped",
        action=argparse.BooleanOptionalAction,
        help="the pictures are disc crops already",
    )
    parser.add_argument(
        "--structures", action="store_true", help="fit disc and cup thresholds, not the risk"
    )
    args = site.parse(parser, arguments, needed=("bundle",), precropped=False)
    return Config(args.bundle, args.set, args.specificity, args.precropped, args.structures)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, calibrate, print the result; the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        config = parse(arguments)
        if config.structures:
            return _main_structures(config)
        bundle, report = run(config)
    except ConfigurationError as error:
        print(f"calibrate: {error}", file=sys.stderr)
        return 2
    assert bundle.risk
    print(readable(bundle.risk, report))
    for role, how in bundle.trained_on(bundle.risk.digest).items():
        print(f"note: {role} was trained on this set, as {how}: expect worse measures elsewhere")
    print(f"calibrated: bundle {bundle.digest[:12]} in {config.bundle}")
    return 0


def _main_structures(config: Config) -> int:
    bundle, report = run_structures(config)
    print(readable_structures(report))
    if not report.helps:
        print(f"refused: no gain, and {config.bundle} stays as it is; outline more pictures")
        return REFUSED
    print(f"calibrated: bundle {bundle.digest[:12]} in {config.bundle}; calibrate its risk again")
    return 0


if __name__ == "__main__":
    sys.exit(main())
