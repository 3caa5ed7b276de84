"""The federation itself: its folder, authority, invites, admitted sites, revocation.

Holds the only private keys of the aggregator's side. No site's private key
ever comes here: sites make their own and send the public halves.
"""
