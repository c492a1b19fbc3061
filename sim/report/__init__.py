"""Results for people (live view, table, failures) and for programs (JSON, JUnit, TAP). Nothing here judges."""
