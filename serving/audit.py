"""What lies in Triton's repository against what the ledger asked for: revision files, bundles, verdicts."""

from collections.abc import Iterator, Sequence

from serving.triton import repository
from sidrec import contract, home
from sidrec.errors import LedgerError
from sidrec.release.promotion import authorise
from sidrec.release.row import LedgerRow, decisions


def audit(rows: Sequence[LedgerRow]) -> Iterator[int]:
    """Yield each revision in the repository once its files are found to be what a row asked for.

    Raises:
        LedgerError: no row asked for a revision that lies there, or not with these contents.
        BundleError: a bundle's file is missing or altered; it is named.
        VerdictError: a verdict is not the one that the row names, or was altered.
        ServingError: a revision file is missing or does not parse, or binds another bundle.
    """
    asked = {row.revision.revision: row for row in decisions(rows)}
    root = home.triton_repository_dir()
    for number in repository.revisions(root):
        version = root / contract.MODEL_NAME / str(number)
        revision = repository.read_revision(version)
        row = asked.get(number)
        if row is None or row.revision != revision:
            said = "has other contents in the ledger" if row else "was never asked for"
            file = repository.REVISION_FILE
            raise LedgerError(
                f"revision {number} in Triton's repository {said}: {file} was altered or is of another ledger",
                evidence=version / file,
                next_step="sidrec deploy writes what the ledger asks for, once this version is moved away",
            )
        for ref in revision.bundles:
            authorise(repository.version_bundle(version, ref), repository.verdict_file(version, ref), row, rows)
        yield number
