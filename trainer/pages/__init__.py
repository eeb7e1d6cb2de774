"""Pages of reports: what stands on them (`experiment`, `corpus`) and how (`markup`)."""
