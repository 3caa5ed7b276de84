"""The subjects that a site keeps out of training: chosen once, by subject, and remembered.

``choice`` is the rule, without a file; ``memory`` what is remembered, in
``worker/heldout.json``; ``parts`` both together, for whoever trains, rehearses or looks.
The site's own policy sets it; no order and no plan can. Nothing here leaves the site.
"""
