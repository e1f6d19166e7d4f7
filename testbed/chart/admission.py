"""Admission as a template of the chart, from the same functions that `fairlane admission manifests` prints.

Objects are made with a word in place of each value that the chart decides;
then the words are replaced by expressions of Helm. Every known kind gets its
own pair of policies (or webhooks), rendered where admission.kinds names it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import yaml

from scheduler.core.admission.kinds import BUILT_IN, KNOWN, Kind
from scheduler.core.admission.policies import policies
from scheduler.core.admission.rules import Rules
from scheduler.core.admission.webhooks import webhook_configurations

Object = dict[str, Any]
NAMESPACE = "WORDnamespaceWORD"
FAILURE = "WORDfailureWORD"
TIMEOUT_S = 987654321
WORDS: dict[str, str] = {
    '["WORDtrustedWORD"]': '{{ include "fairlane.trusted" . }}',
    '["WORDsubmittersWORD"]': '{{ include "fairlane.list" .Values.admission.submitters }}',
    '"WORDcontrollerWORD"': '"system:serviceaccount:{{ .Release.Namespace }}:fairlane-controller"',
    FAILURE: "{{ .Values.admission.failurePolicy }}",
    NAMESPACE: "{{ toYaml .Release.Namespace }}",
    str(TIMEOUT_S): "{{ .Values.admission.webhook.timeoutSeconds }}",
}
_EXCLUDED = re.compile(r"values:\n\s*- WORDexcludedWORD\n")
_HEAD = "{{- /* Made by `make manifests` from scheduler/core/admission: change it there. */}}\n"


def policies_template() -> str:
    """templates/admission-policies.yaml."""
    base = _documents(policies(_rules(BUILT_IN), FAILURE))
    known = [_if_kind(name, _documents(_policies_of(kind))) for name, kind in KNOWN.items()]
    return _guarded("policies", base + "".join(known)) + _trusted()


def webhooks_template() -> str:
    """templates/admission-webhooks.yaml: both configurations."""
    return _guarded("webhook", "".join(_configuration(number) for number in (0, 1)))


def _rules(kinds: Iterable[Kind]) -> Rules:
    return Rules(
        scheduler_name="fairlane",
        controller="WORDcontrollerWORD",
        trusted=frozenset({"WORDtrustedWORD"}),
        submitters=frozenset({"WORDsubmittersWORD"}),
        excluded_namespaces=("WORDexcludedWORD",),
        kinds=tuple(kinds),
    )


def _policies_of(kind: Kind) -> list[Object]:
    """Those that `kind` adds."""
    always = {one["metadata"]["name"] for one in policies(_rules(()))}
    return [one for one in policies(_rules((kind,)), FAILURE) if one["metadata"]["name"] not in always]


def _configurations(kinds: Iterable[Kind]) -> list[Object]:
    client = {"service": {"name": "fairlane-admission", "namespace": NAMESPACE, "port": 443}}
    return webhook_configurations(_rules(kinds), client, FAILURE, TIMEOUT_S)


def _configuration(number: int) -> str:
    """The mutating (0) or the validating (1) one, with the webhooks of known kinds behind those of all."""
    whole = _configurations(BUILT_IN)[number]
    always = {hook["name"] for hook in _configurations(())[number]["webhooks"]}
    text = _documents([whole], annotations="fairlane.injectedTrust")
    for name, kind in KNOWN.items():
        own = [hook for hook in _configurations((kind,))[number]["webhooks"] if hook["name"] not in always]
        text += _if_kind(name, _filled(_yaml(own)))
    return text


def _if_kind(name: str, text: str) -> str:
    return f'{{{{- if has "{name}" .Values.admission.kinds }}}}\n{text}{{{{- end }}}}\n'


def _guarded(by: str, text: str) -> str:
    return f'{_HEAD}{{{{- if eq (include "fairlane.admissionBy" .) "{by}" }}}}\n{text}{{{{- end }}}}\n'


def _documents(objects: Iterable[Object], annotations: str = "fairlane.annotations") -> str:
    return "".join("---\n" + _with_labels(_filled(_yaml(one)), annotations) for one in objects)


def _with_labels(text: str, annotations: str) -> str:
    """The chart's labels and annotations on an object that has a name and no other metadata."""
    added = (
        '  labels:\n    {{- include "fairlane.labels" . | nindent 4 }}\n'
        f'  {{{{- include "{annotations}" . | nindent 2 }}}}\n'
    )
    return re.sub(r"^(metadata:\n  name: \S+\n)", lambda found: found[1] + added, text, count=1, flags=re.M)


def _yaml(value: Any) -> str:
    text = yaml.dump(value, Dumper=_Plain, sort_keys=False, width=10**6, allow_unicode=True)
    if "{{" in text:
        raise ValueError("an expression has {{ in it, which Helm would take for its own")
    return text


def _filled(text: str) -> str:
    for word, expression in WORDS.items():
        text = text.replace(word, expression)
    text = _EXCLUDED.sub('values: {{ include "fairlane.excludedNamespaces" . }}\n', text)
    if "WORD" in text:
        raise ValueError(f"a word was not replaced: {re.findall(r'.*WORD.*', text)[0]}")
    return text


def _trusted() -> str:
    """Helpers: lists, as CEL and YAML write them, of the trusted users and of the namespaces left alone."""
    always = sorted({name for kind in BUILT_IN for name in kind.controllers})
    lines = [f"{{{{- $names := concat (list {_quoted(always)}) .Values.admission.trustedControllers -}}}}"]
    for name, kind in KNOWN.items():
        add = f"$names = concat $names (list {_quoted(kind.controllers)})"
        lines.append(f'{{{{- if has "{name}" .Values.admission.kinds }}}}{{{{ {add} }}}}{{{{ end -}}}}')
    body = "\n".join(lines)
    return (
        f'{{{{- define "fairlane.trusted" -}}}}\n{body}\n'
        '{{ $names | uniq | sortAlpha | include "fairlane.list" }}\n{{- end }}\n'
        '{{- define "fairlane.list" -}}\n{{ toJson . | replace `","` `", "` }}\n{{- end }}\n'
        '{{- define "fairlane.excludedNamespaces" -}}\n'
        "{{ append .Values.admission.excludedNamespaces .Release.Namespace | uniq | sortAlpha | toJson }}\n"
        "{{- end }}\n"
    )


def _quoted(names: Iterable[str]) -> str:
    return " ".join(f'"{name}"' for name in names)


class _Plain(yaml.SafeDumper):
    """Writes everything out: references between objects cannot be cut apart."""

    def ignore_aliases(self, _data: object) -> bool:
        """Always."""
        return True
