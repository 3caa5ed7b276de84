"""The whole federation on one machine: made-up hospitals from a real brain template.

May use every role's package, because it plays every role. Nothing here runs at
a hospital.
"""
