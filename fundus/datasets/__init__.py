"""Sets of labelled pictures: public layouts, a manifest, a synthetic camera."""
