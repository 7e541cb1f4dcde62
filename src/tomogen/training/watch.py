"""Early words: what the log shows before the pictures do. Each criterion is one function of the log's lines.

A window is `WINDOW` steps; the numbers compared are medians over windows, so that single steps say nothing.
"""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

WINDOW = 50
"""Steps whose median is one number."""
PATIENCE = 4
"""Windows, or previews, in a row before anything is said."""

COLLAPSED = 0.1
"""Variety of the samples, as a share of that of real images."""
STILL = 0.02
"""Change of the critic's lead, relative to its size, that counts as none."""

CERTAIN = 0.25
"""A discriminator's loss, on real and made images together, below which it is right nearly always."""
HOPELESS = 4.0
"""The loss of a generator whose images are held for made with 98 in 100; one at 3.7 was seen to learn on."""

Lines = Sequence[Mapping[str, Any]]


def words(losses: Lines, previews: Lines) -> dict[str, str]:
    """What there is to say of log lines and preview events so far, by kind, which is the name of its function."""
    found = {
        "critic_won": critic_won(losses),
        "discriminator_won": discriminator_won(losses),
        "collapsed": collapsed(previews),
        "stuck": stuck(losses),
    }
    return {kind: text for kind, text in found.items() if text}


def critic_won(losses: Lines) -> str | None:
    """The critic's lead (minus its adversarial loss) only grows: for several windows above all that was before.

    In a healthy game it leaps up in the first steps, before the generator has learnt anything, and then falls.
    """
    leads = _leads(losses)
    before, recent = leads[:-PATIENCE], leads[-PATIENCE:]
    if not before or max(before) <= 0 or min(recent) < max(before) or recent[-1] < (1 + STILL) * max(before):
        return None
    return (
        f"the critic is winning: its lead over the generator has grown for {PATIENCE * WINDOW} steps, from "
        f"{max(before):.3g} to {recent[-1]:.3g}; a lower optimizer.critic.lr or fewer critic turns may help"
    )


def discriminator_won(losses: Lines) -> str | None:
    """A discriminator has been certain, and its generator hopeless, for several windows.

    Both are cross-entropies: at a draw they stand at 1.39 and 0.69, in the published DCGAN at 0.1 and 5. The first
    windows do not count: every generator is easily told from life at first.
    """
    judged = _medians(losses, "discriminator/real", "discriminator/fake")
    made = _medians(losses, "generator/adversarial")
    if min(len(judged), len(made)) < 2 * PATIENCE:
        return None
    if max(judged[-PATIENCE:]) > CERTAIN or min(made[-PATIENCE:]) < HOPELESS:
        return None
    return (
        f"the discriminator has won: its loss is {judged[-1]:.2g} and the generator's {made[-1]:.2g}, and they have "
        f"been so for {PATIENCE * WINDOW} steps (at a draw 1.4 and 0.7); train anew with model.label_smoothing=0.1, "
        "model.instance_noise=0.1, a lower optimizer.discriminator.lr or model.discriminator_norm=spectral"
    )


def stuck(losses: Lines) -> str | None:
    """The Wasserstein estimate has not moved for several windows while it is still far from its best."""
    leads = _leads(losses)
    if len(leads) <= PATIENCE or not any("critic/penalty" in line for line in losses[-1:]):
        return None
    recent, highest = leads[-PATIENCE - 1 :], max(leads)
    if highest > 0 and min(recent) > 0.5 * highest and max(recent) - min(recent) < STILL * max(recent):
        return (
            f"the Wasserstein estimate stays at {recent[-1]:.3g} (its highest was {highest:.3g}) "
            f"for {PATIENCE * WINDOW} steps: the generator does not gain on the critic"
        )
    return None


def collapsed(previews: Lines) -> str | None:
    """Samples from unlike noise look alike: their variety is a small share of that of real images."""
    recent = [line["variety"] for line in previews if line["step"] > 0 and line.get("variety") is not None][-PATIENCE:]
    if len(recent) == PATIENCE and max(recent) < COLLAPSED:
        return (
            f"the samples have collapsed: their variety is {recent[-1]:.1%} of that of real images, "
            f"for {PATIENCE} previews"
        )
    return None


def _leads(losses: Lines) -> list[float]:
    """How far the critic tells real from made, a median per whole window since the first step."""
    return [-value for value in _medians(losses, "critic/adversarial")]


def _medians(losses: Lines, *terms: str) -> list[float]:
    """The sum of some loss terms, a median per whole window since the first step."""
    values = [sum(line[term] for term in terms) for line in losses if all(line.get(term) is not None for term in terms)]
    return [median(values[first : first + WINDOW]) for first in range(0, len(values) - WINDOW + 1, WINDOW)]
