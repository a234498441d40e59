{{/* What things are called. */}}
{{- define "packeteur.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* 52 characters and the longest suffix, `-collector`, are what a label can hold. */}}
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

{{/* Where the nodes' captures send to. A pod's own name, not a service's address: a capture leaves its own relay out by the
     addresses of the endpoint, and those of a service become others on the way. */}}
{{- define "packeteur.relayEndpoint" -}}
{{- if .Values.relayEndpoint }}
{{- .Values.relayEndpoint }}
{{- else }}
{{- $collector := include "packeteur.collector" . }}
{{- printf "tcp://%s-0.%s-pods.%s.svc:%d" $collector $collector .Release.Namespace (int .Values.collector.ports.relay) }}
{{- end }}
{{- end }}

{{/* A container that may do nothing but its work. */}}
{{- define "packeteur.confined" -}}
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
