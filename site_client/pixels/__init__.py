"""From a site's multi-band slides to keys, sketches and group maps, chunk by chunk.

Lives here: reading slides in bounded memory, the sums that sites add up, the
fast way from pixels to keys, counting keys, what may be released of what was
counted, and embedding a slide with a codebook. May not live here: what a key
means (``common.keys``), how tables are hashed (``common.sketching``), SimpleITK
(``site_client.imaging``), or anything that sends. Pixels, file names and rare
keys stay in this process.
"""
