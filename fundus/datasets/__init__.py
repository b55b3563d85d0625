"""Where labelled pictures come from: public layouts, a manifest, a synthetic camera."""
