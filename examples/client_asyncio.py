"""Our client in a program with an event loop: many users at once over one connection.

python examples/client_asyncio.py HOST:PORT[,HOST:PORT…] ITEM…
"""

import asyncio
import sys

from sidrec.client import AsyncRecommendClient


async def main(url: str, items: list[str]) -> None:
    """Ask for each item as if it were a user's whole history."""
    async with AsyncRecommendClient(url, timeout_s=2.0) as client:
        answers = await asyncio.gather(*(client.recommend(history=[item], k=5) for item in items))
    for item, answer in zip(items, answers, strict=True):
        print(f"{item}\t{','.join(answer.item_ids)}")


asyncio.run(main(sys.argv[1], sys.argv[2:]))
