{{/* Names and labels. */}}
{{- define "packeteur.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* At most 52 characters, so that a name with the suffix `-collector` fits into a label. */}}
{{- define "packeteur.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "packeteur.collector" -}}
{{ include "packeteur.fullname" . }}-collector
{{- end }}

{{- define "packeteur.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "packeteur.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "packeteur.image" -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end }}

{{- define "packeteur.selector" -}}
app.kubernetes.io/name: {{ include "packeteur.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "packeteur.labels" -}}
{{ include "packeteur.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* The endpoint of the nodes' captures. It names the pod, not a service: a capture excludes its own relay traffic by the
     endpoint's addresses, and a service's address is rewritten on the way. */}}
{{- define "packeteur.relayEndpoint" -}}
{{- if .Values.relayEndpoint }}
{{- .Values.relayEndpoint }}
{{- else }}
{{- $collector := include "packeteur.collector" . }}
{{- printf "tcp://%s-0.%s-pods.%s.svc:%d" $collector $collector .Release.Namespace (int .Values.collector.ports.relay) }}
{{- end }}
{{- end }}

{{/* Security context of containers without privileges. */}}
{{- define "packeteur.unprivileged" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
readOnlyRootFilesystem: true
{{- end }}

{{- define "packeteur.filter" -}}
{{- $overlay := .Values.overlay | trim }}
{{- $filter := .Values.filter | trim }}
{{- if and $filter $overlay }}
{{- printf "(%s) and not (%s)" $filter $overlay }}
{{- else if $overlay }}
{{- printf "not (%s)" $overlay }}
{{- else }}
{{- $filter }}
{{- end }}
{{- end }}

{{/* TLS and passwords for metrics: the variable, the mount and the volume, and how probes connect. */}}
{{- define "packeteur.webConfigEnv" -}}
{{- if .Values.webConfig.secret -}}
- name: WEB_CONFIG_FILE
  value: /etc/packeteur/web/web.yml
{{- end }}
{{- end }}

{{- define "packeteur.webConfigMount" -}}
{{- if .Values.webConfig.secret -}}
- name: web-config
  mountPath: /etc/packeteur/web
  readOnly: true
{{- end }}
{{- end }}

{{- define "packeteur.webConfigVolume" -}}
{{- with .Values.webConfig.secret -}}
- name: web-config
  secret:
    secretName: {{ . }}
    # For the fsGroup. A key that everybody may read is rejected.
    defaultMode: 0440
{{- end }}
{{- end }}

{{/* The relay's keys: the variable, the mount and the volume. The context is `keys` or `collector.keys`. */}}
{{- define "packeteur.keyEnv" -}}
{{- if .secret -}}
- name: KEY_FILE
  value: /etc/packeteur/key/key
{{- end }}
{{- end }}

{{- define "packeteur.keyMount" -}}
{{- if .secret -}}
- name: key
  mountPath: /etc/packeteur/key
  readOnly: true
{{- end }}
{{- end }}

{{- define "packeteur.keyVolume" -}}
{{- with .secret -}}
- name: key
  secret:
    secretName: {{ . }}
    # For the fsGroup. A key that everybody may read is rejected.
    defaultMode: 0440
    items: [{key: key, path: key}]
{{- end }}
{{- end }}

{{- define "packeteur.probeScheme" -}}
{{- if .Values.webConfig.secret -}}
scheme: {{ .Values.webConfig.scheme }}
{{- end }}
{{- end }}
