"""What the database itself refuses: any change to a row, any row that is not the next, any head that is no row.

SQLite's `INSERT OR REPLACE` deletes without asking a delete trigger, so the insert trigger refuses what it replaces.
"""

from typing import Final

REFUSAL: Final = "append-only"

_SQLITE: Final = (
    *(
        f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
        f"BEGIN SELECT RAISE(ABORT, 'the ledger is {REFUSAL}: no {verb} of {table}'); END"
        for table, verb in (
            ("sidrec_ledger", "UPDATE"),
            ("sidrec_ledger", "DELETE"),
            ("sidrec_ledger_head", "DELETE"),
            ("sidrec_ledger_head", "INSERT"),
        )
    ),
    "CREATE TRIGGER sidrec_ledger_next BEFORE INSERT ON sidrec_ledger "
    "WHEN NEW.seq <> (SELECT seq + 1 FROM sidrec_ledger_head) "
    "OR NEW.previous <> (SELECT hash FROM sidrec_ledger_head) "
    "OR EXISTS (SELECT 1 FROM sidrec_ledger WHERE seq >= NEW.seq OR hash = NEW.hash OR previous = NEW.previous) "
    f"BEGIN SELECT RAISE(ABORT, 'the ledger is {REFUSAL}: this row is not the next'); END",
    "CREATE TRIGGER sidrec_ledger_head_next BEFORE UPDATE ON sidrec_ledger_head "
    "WHEN NEW.id <> OLD.id OR NEW.schema_version <> OLD.schema_version OR NEW.seq <> OLD.seq + 1 "
    "OR NOT EXISTS (SELECT 1 FROM sidrec_ledger WHERE seq = NEW.seq AND hash = NEW.hash) "
    f"BEGIN SELECT RAISE(ABORT, 'the ledger is {REFUSAL}: the head follows the newest row'); END",
)

_REFUSE: Final = f"""
CREATE OR REPLACE FUNCTION sidrec_ledger_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'the ledger is {REFUSAL}: no % of %', TG_OP, TG_TABLE_NAME;
END $$
"""
_NEXT: Final = f"""
CREATE OR REPLACE FUNCTION sidrec_ledger_next() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NOT EXISTS (SELECT 1 FROM sidrec_ledger_head WHERE seq + 1 = NEW.seq AND hash = NEW.previous) THEN
    RAISE EXCEPTION 'the ledger is {REFUSAL}: this row is not the next';
  END IF;
  RETURN NEW;
END $$
"""
_HEAD: Final = f"""
CREATE OR REPLACE FUNCTION sidrec_ledger_head_next() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.id <> OLD.id OR NEW.schema_version <> OLD.schema_version OR NEW.seq <> OLD.seq + 1
     OR NOT EXISTS (SELECT 1 FROM sidrec_ledger WHERE seq = NEW.seq AND hash = NEW.hash) THEN
    RAISE EXCEPTION 'the ledger is {REFUSAL}: the head follows the newest row';
  END IF;
  RETURN NEW;
END $$
"""
# A percent sign is a parameter to the driver.
_POSTGRESQL: Final = (
    _REFUSE.replace("%", "%%"),
    _NEXT,
    _HEAD,
    "CREATE TRIGGER sidrec_ledger_fixed BEFORE UPDATE OR DELETE ON sidrec_ledger "
    "FOR EACH ROW EXECUTE FUNCTION sidrec_ledger_refuse()",
    "CREATE TRIGGER sidrec_ledger_head_fixed BEFORE INSERT OR DELETE ON sidrec_ledger_head "
    "FOR EACH ROW EXECUTE FUNCTION sidrec_ledger_refuse()",
    *(
        f"CREATE TRIGGER {table}_whole BEFORE TRUNCATE ON {table} "
        "FOR EACH STATEMENT EXECUTE FUNCTION sidrec_ledger_refuse()"
        for table in ("sidrec_ledger", "sidrec_ledger_head")
    ),
    "CREATE TRIGGER sidrec_ledger_follows BEFORE INSERT ON sidrec_ledger "
    "FOR EACH ROW EXECUTE FUNCTION sidrec_ledger_next()",
    "CREATE TRIGGER sidrec_ledger_head_follows BEFORE UPDATE ON sidrec_ledger_head "
    "FOR EACH ROW EXECUTE FUNCTION sidrec_ledger_head_next()",
)


def statements(dialect: str) -> tuple[str, ...]:
    """Return the statements that make the triggers, for `sqlite` or `postgresql`."""
    return _SQLITE if dialect == "sqlite" else _POSTGRESQL
