"""Looking at all of a site's data: every image opened, what is wrong in words, and a page.

For the people of the site. What is shown here names files and shows patients: it is
printed where the command was typed, or written where they said, and nowhere else.
No door, no wire and no ledger may be known here.
"""
