"""Sample ratio mismatch: whether users fell into the arms as the shares say.

A mismatch means that some users of one arm are missing from the log, and nobody knows what they did; so no
correction is tried.

Axes: `arm` arms of the plan, `experiment` experiments that are judged at once.
"""

import numpy as np
from jaxtyping import Float
from scipy.stats import chi2

SRM_LIMIT = 0.0005
"""Red below it: one experiment in 2,000 is stopped for nothing."""


def sample_ratio_p(
    counts: Float[np.ndarray, "*experiment arm"], shares: Float[np.ndarray, " arm"]
) -> Float[np.ndarray, "*experiment"]:
    """Return the chance of users by arm at least so far from the shares, for any number of arms and experiments.

    Source: chi-square test of the sample ratio mismatch, Fabijan et al., "Diagnosing Sample Ratio Mismatch in
    Online Controlled Experiments" (KDD 2019).
    """
    expected = counts.sum(axis=-1, keepdims=True) * shares
    return np.asarray(chi2.sf(((counts - expected) ** 2 / expected).sum(axis=-1), df=len(shares) - 1))
