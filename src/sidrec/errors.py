"""Every error that sidrec raises at a boundary.

SidrecError
├── UsageError            the call itself is wrong                         exit 2
│   └── RecipeError       a recipe does not load or contradicts itself     exit 2
└── CheckFailedError      a check said no; state is untouched              exit 1
    ├── ValidationFailedError   a batch expectation failed                 exit 1
    ├── BundleError       a bundle is missing, mixed or tampered with      exit 1
    ├── VerdictError      no valid passing verdict for this bundle         exit 1
    │   └── InconclusiveError   the evidence decides neither way           exit 3
    ├── PromotionError    a check of the promotion says no                 exit 1
    ├── LedgerError       the chain is broken or the move is not allowed   exit 1
    │   └── LedgerUnreachableError   its database does not answer          exit 1
    ├── ServingError      the server does not answer as the contract says  exit 1
    └── BusyError         another run holds this slot                      exit 1
"""

from pathlib import Path


class SidrecError(Exception):
    """Carries what was seen, the file that shows it, and the command to try next."""

    exit_code = 1

    def __init__(self, message: str, *, evidence: str | Path | None = None, next_step: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.evidence = None if evidence is None else str(evidence)
        self.next_step = next_step

    def as_dict(self) -> dict[str, str | None]:
        """Return the error as the JSON object that `--json` prints."""
        return {
            "error": type(self).__name__,
            "message": self.message,
            "evidence": self.evidence,
            "next": self.next_step,
        }


class UsageError(SidrecError):
    """The call itself is wrong: an option, a path, a value."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe does not load, or two of its values contradict each other."""


class CheckFailedError(SidrecError):
    """A check said no; nothing that was live has changed."""


class ValidationFailedError(CheckFailedError):
    """A batch expectation on the input data failed."""


class BundleError(CheckFailedError):
    """A bundle is missing, incomplete, mixed or tampered with."""


class VerdictError(CheckFailedError):
    """There is no valid, passing, fresh verdict for exactly this bundle."""


class InconclusiveError(VerdictError):
    """The evidence decides neither way."""

    exit_code = 3


class PromotionError(CheckFailedError):
    """A check of the promotion says no; a second person may overrule it."""


class LedgerError(CheckFailedError):
    """The ledger's chain is broken, or it does not allow this move."""


class LedgerUnreachableError(LedgerError):
    """The ledger's database does not answer; what is asked for is unknown, not wrong."""


class ServingError(CheckFailedError):
    """The server does not answer as the contract says."""


class BusyError(CheckFailedError):
    """Another process holds what this one needs."""
