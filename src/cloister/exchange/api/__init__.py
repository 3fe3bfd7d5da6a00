"""The REST API, served behind the core's web front over a private UNIX socket.

Owns: routes and their guards, the forms of requests and answers, the one HTTP server. Never: decides, holds state. Every route is made by
`routing.Routes`, which takes no route without a guard and no mutation without the name of its audit action.
"""
