"""The key of model control: one account's, and whole whoever writes it when."""

from concurrent.futures import ThreadPoolExecutor

from serving.state import ADMIN_KEY_FILE, read_admin_key, write_admin_key
from sidrec import home


def test_servers_that_start_at_once_may_all_write_the_key() -> None:
    """Eight at a time, again and again: none fails, the key can be read throughout, and nothing else is left."""
    write_admin_key("k" * 32)
    with ThreadPoolExecutor(8) as pool:
        writes = [pool.submit(write_admin_key, "k" * 32) for _ in range(400)]
        reads = [read_admin_key() for _ in range(200)]
        for done in writes:
            done.result()

    assert set(reads) == {"k" * 32}
    assert [path.name for path in home.serving_dir().iterdir()] == [ADMIN_KEY_FILE]


def test_the_key_is_this_accounts_alone() -> None:
    write_admin_key("secret")

    assert (home.serving_dir() / ADMIN_KEY_FILE).stat().st_mode & 0o777 == 0o600
