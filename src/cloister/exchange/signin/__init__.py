"""People who sign in at identity providers: one attempt is one state machine, bound to one terminal, one browser, one key and ten minutes.

Owns attempts, pages, who becomes which user. Never believes anything that `identity` did not verify. Called by links and by the web.
"""
