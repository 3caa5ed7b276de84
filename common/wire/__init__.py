"""Messages that may cross between parties, and their bytes.

``codes`` numbers that may leave without text; ``records`` the closed set of
record types; ``envelope`` one record as safetensors bytes; ``orders`` what the
aggregator asks of a site; ``parcel`` several byte strings as one file or
message. Nothing here opens a file or a socket.
"""
