"""The pixel road on one machine: a scene of 200 bands, three made-up sites, one codebook.

May use every role's package, because it plays every role. The scene is remote
sensing and not tissue; it shows the machinery. Nothing here runs at a hospital.
"""
