"""Results as DICOM Segmentation and Structured Report, for the archive of the original objects.

These objects contain the patient's name, id and birth date, as DICOM requires of derived objects.
They are the only output that names a patient: store them in a location of their own.
"""
