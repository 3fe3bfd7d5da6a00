"""SAML 2.0 web browser SSO as a service provider: what is sent, and what a response must be made of before anything in it is believed.

The cryptography and the profile's own rules are pysaml2's, on xmlsec1. Never asks anybody; `exchange/signin` does.
"""
