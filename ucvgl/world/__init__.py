"""The embedded world: a procedural city seen from the street, the air and above, with the ground truth of each picture.

styles      what kind of place is built             city        its raster layers, from a seed; stops along its streets
appearance  season, sun, shadows, traffic           render      rays from an eye through those layers
views       tiles, panoramas, photos, drone images  difficulty  how far panorama and tile differ; sensors
rendering   settings to images, kept                pairs, drives, export   all of it as data sets
"""
