"""Intervals that hold at every look: peeking daily, and stopping when one likes the result, costs no coverage.

The estimate must be asymptotically a mean over users (a mean, a ratio, a CUPED-adjusted mean, a difference of such),
and a user counts from the day on which their outcome is final. Everything is said in standard errors of the
estimate, which shrink with the root of the users, so one formula serves all of them.

Axes: `look` times at which the experiment is read.
"""

from math import e, exp, log, sqrt

import numpy as np
from jaxtyping import Float
from scipy.special import lambertw


def mixture_precision(tuned_for: int, alpha: float) -> float:
    """Return ρ² of the normal mixture whose interval is narrowest at `tuned_for` users.

    It must be fixed before the first look. Twice or half the users cost a few percent of width.

    Source: the width of `half_width` is least where u = tρ² + 1 solves u − 1 = log u − 2 log α, so
    u = −W₋₁(−α²/e), W the Lambert function; the choice of ρ in Waudby-Smith et al., arXiv 2103.06476.
    """
    return float(-lambertw(-(alpha**2) / e, k=-1).real - 1) / tuned_for


def half_width(users: Float[np.ndarray, " look"], *, tuned_for: int, alpha: float) -> Float[np.ndarray, " look"]:
    """Return half the always-valid interval at each number of users, in standard errors of the estimate.

    Source: Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas, "Time-uniform central limit theory and asymptotic
    confidence sequences", arXiv 2103.06476v9, Theorem 2.2: σ̂ √(2(tρ² + 1)/(t²ρ²) · log(√(tρ² + 1)/α)), here divided
    by the standard error σ̂/√t.
    """
    information = np.asarray(users, dtype=np.float64) * mixture_precision(tuned_for, alpha)
    return np.sqrt(2 * (information + 1) / information * np.log(np.sqrt(information + 1) / alpha))


def half_width_at(users: int, *, tuned_for: int, alpha: float) -> float:
    """Return `half_width` for one look."""
    return float(half_width(np.array([users], dtype=np.float64), tuned_for=tuned_for, alpha=alpha)[0])


def always_valid_p(z: float, users: int, *, tuned_for: int, alpha: float) -> float:
    """Return the p-value that may be read at every look: at most α exactly when the interval leaves zero out.

    Args:
        z: the estimate in its standard errors.

    Source: the inverse of the normal mixture's likelihood ratio, Johari, Pekelis & Walsh, "Always valid inference",
    arXiv 1512.04922; equal to solving Theorem 2.2 of arXiv 2103.06476 for α at a fixed ρ.
    """
    information = users * mixture_precision(tuned_for, alpha)
    log_ratio = z * z * information / (2 * (information + 1)) - log(information + 1) / 2
    return min(1.0, exp(-log_ratio))


def users_until(width: float, spread: float, *, tuned_for: int, alpha: float, extra: float = 0.0) -> int:
    """Return the fewest users at which (half the interval + `extra` standard errors) is at most `width`.

    Args:
        spread: standard error of the estimate times the root of the users.
        extra: the power's normal quantile, to leave zero out with that power at an effect of `width`.
    """
    if spread <= 0:
        return 2
    low, high = 1, 2
    while not _narrow(high, width, spread, tuned_for, alpha, extra):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        if _narrow(middle, width, spread, tuned_for, alpha, extra):
            high = middle
        else:
            low = middle
    return high


def _narrow(users: int, width: float, spread: float, tuned_for: int, alpha: float, extra: float) -> bool:
    reach = half_width_at(users, tuned_for=tuned_for, alpha=alpha) + extra
    return reach * spread / sqrt(users) <= width
