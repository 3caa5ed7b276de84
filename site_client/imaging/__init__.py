"""The only opener of images: volumes, landmark files, data folders, crops.

SimpleITK is imported here and nowhere else. Everything in this folder stays at
the site: voxels, world positions and case names may not reach an envelope, and
errors name files and landmarks but never quote a voxel. What people are shown of
a folder, ``site_client.data_check`` draws from what is judged here.
"""
