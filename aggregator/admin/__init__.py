"""The federation itself: its folder, authority, invites, admitted sites, revocation.

``folder`` says where what lies, ``invites`` what a token lets in, ``enrol`` admits
and revokes, ``certificates`` and ``credentials`` name the sites and coordinators
who may use the desk, ``sealed`` keeps what the sites seal for each other. Holds
the only private keys of the aggregator's side. No site's private key ever comes
here: sites make their own and send the public halves.
"""
