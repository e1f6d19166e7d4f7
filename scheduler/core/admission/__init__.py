"""Admission: what becomes of objects before they are stored; pure decisions, from dictionaries to a verdict.

    pod created       joins the queue?  -> gate, scheduler name, queue, stamp        pods.py
    pod changed       stamp and gate stay as they are, but for the controller        pods.py
    template written  stamped with whoever wrote it, so that controllers pass it on  templates.py

The same rules are there twice, because the API server can apply them by itself:
as Python for the webhook (`review.answer`) and as CEL for admission policies
(`policies.py`). The integration tests run against both.

Words: the *stamp* is the annotation `fairlane.dev/user`, always an authenticated
user; to *join* is to wait in the queue; a *trusted* caller is a controller that
copies stamped templates into pods; a *submitter* may act for others by
`fairlane.dev/on-behalf-of`; a *carrier* is a pod or a template with annotations.
"""
