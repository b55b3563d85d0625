"""Pages that people look at: a run, an adaptation, two bundles. No server, no outside request."""
