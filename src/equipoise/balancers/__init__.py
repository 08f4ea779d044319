"""Balancing methods, one a file."""

from equipoise.balancers._agm import AGM
from equipoise.balancers._ags import AGS
from equipoise.balancers._mses import MSES
from equipoise.balancers._ogm_ge import OGMGE
from equipoise.core import Balancer

BALANCERS: dict[str, type[Balancer]] = {
    "agm": AGM,
    "ags": AGS,
    "mses": MSES,
    "ogm_ge": OGMGE,
}

__all__ = ["AGM", "AGS", "BALANCERS", "MSES", "OGMGE"]
