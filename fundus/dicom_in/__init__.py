"""Reading DICOM objects: their frames, colours and eyes, also where a header is wrong."""
