"""Results as DICOM for the archive that the pictures came from: Segmentation and Structured Report.

These objects carry the patient's name, id and birth date, as DICOM demands of what is filed beside
its source. They are the one output that names a patient: keep them in a place of their own.
"""
