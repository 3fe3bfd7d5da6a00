"""SCIM in the exchange: directories and their tokens, and what their requests do to documents.

Owns: which resource belongs to which directory, and the way from a resource to a document and back. Never: writes past `Changes`, so every change has its
audit row, its generation and its effect on live sessions. Called by the API's routes.
"""
