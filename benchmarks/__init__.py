"""What is measured beside its peers; nothing imports this.

A name here is a module with `run(*, quick: bool)`, which returns the report that `sidrec bench` prints.
"""

BENCHMARKS = {
    "codebook": "fits and balanced assignment vs faiss, scikit-learn, vector-quantize-pytorch, ortools; memory; growth",
    "decode": "both decoding engines vs Hugging Face generate on Qwen3 and T5; thinking; arithmetic; memory; growth",
    "evaluate": "a search for every user of Amazon Beauty vs Hugging Face generate; ranks by counting vs sorting",
    "monitoring": "the drift report of ten million exposures: seconds, peak memory, bytes",
    "recover": "from the kill of the stub, or of the server, to the first good answer for a stored user",
    "scale": "time and peak memory of every step from 1e4 to 1e7 items and 1e5 to 1e8 events, with exponents",
    "serve": "a real Triton over its engine in-process, batching, open loop; the gateway beside gRPC",
    "systems": "one request by S²GR, REG4Rec and SIDReasoner through a real Triton, in turn",
    "trie": "the trie from 1e4 to 1e7 items: build, bytes, masks; vs dicts, sorted keys, a check of every item",
    "training": "S²GR's training step vs a Hugging Face T5 of the same widths; share of its matrix products",
}
