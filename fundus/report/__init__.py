"""HTML pages of a run, an adaptation and two bundles. They need no server and send no request."""
