"""S²GR reads histories as every system does: the names of `sidrec.systems.history` and `sidrec.systems.batches`."""

from sidrec.systems.batches import EncoderInput, Sampling, TrainingBatch, TrainingSet, encoder_input
from sidrec.systems.history import History, code_table, has_code, histories_of

__all__ = [
    "EncoderInput",
    "History",
    "Sampling",
    "TrainingBatch",
    "TrainingSet",
    "code_table",
    "encoder_input",
    "has_code",
    "histories_of",
]
