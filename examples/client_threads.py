"""Our client in a program without an event loop: one call, one deadline, an error for each thing one can do.

python examples/client_threads.py HOST:PORT[,HOST:PORT…] ITEM…
"""

import sys

from sidrec.client import DeadlineError, OverloadError, RecommendClient, UnavailableError
from sidrec.errors import UsageError

url, *history = sys.argv[1:]

# One client a process, shared by its threads: it keeps the connections and what it knows of the servers.
with RecommendClient(url, timeout_s=0.5) as client:
    try:
        answer = client.recommend(history=history, k=5, context={"surface": "example"})
    except UsageError as error:
        sys.exit(f"mend the request: {error}")
    except (DeadlineError, OverloadError, UnavailableError) as error:
        # Retries and other servers have been tried within the half second: show what needs no model.
        sys.exit(f"go on without recommendations: {error}")

for item_id, score in zip(answer.item_ids, answer.scores, strict=True):
    print(f"{item_id}\t{score:.3f}")
# Send the request id with the purchases that follow, so that they are counted for this answer.
print(f"source={answer.source} bundle={answer.bundle_id} request_id={answer.request_id}", file=sys.stderr)
