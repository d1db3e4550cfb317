"""The names, in errors, of the settings that say which column is what: as Python and as the command line have them."""

__all__ = ["AS_OWNER", "COUNTED", "FEATURES", "LEFT_OUT", "TARGET"]

FEATURES, TARGET = "feature_columns, --feature-columns", "target_column, --target-column"
LEFT_OUT = f"leave the column out by naming the features ({FEATURES})"
AS_OWNER = "If it says whose a row is, name it as the owner (owner, --owner)."
COUNTED = "Rows are counted from 0, a header is none."
