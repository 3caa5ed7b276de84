"""What a verified ledger says, in the forms that hospitals already collect.

FHIR R4 AuditEvents, DICOM audit messages over TLS syslog, JSON lines. Nothing is read
here but a ledger that was just verified, and a ledger that is broken comes out as an alert
and nothing else. ``event`` is the one closed form that all three are made of: what has no
field there cannot be exported, and no field there holds a value of an image or a patient.
"""
