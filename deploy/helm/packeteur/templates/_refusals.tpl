{{/* Values that cannot work together. What is wrong with one of them alone is in values.schema.json. */}}
{{- define "packeteur.refusals" -}}
{{- $values := .Values }}
{{- if and (eq $values.mode "none") (not $values.collector.enabled) }}
{{- fail "mode is `none` and collector.enabled is false: there is nothing to install" }}
{{- end }}
{{- if and (eq $values.mode "capture") (not $values.relayEndpoint) (not $values.collector.enabled) }}
{{- fail "mode is `capture`, and there is no collector to send to: set collector.enabled, or relayEndpoint to one elsewhere" }}
{{- end }}
{{- if and $values.relayEndpoint (ne $values.mode "capture") }}
{{- fail (printf "relayEndpoint is `%s`, but mode is `%s`: only captures send packets" $values.relayEndpoint $values.mode) }}
{{- end }}
{{- if and (ne $values.mode "none") (not $values.devices) (not (hasKey $values.settings "TZSP_PORT")) (not (hasKey $values.settings "READ_FILE")) }}
{{- fail "devices is empty, and neither settings.TZSP_PORT nor settings.READ_FILE says where packets come from instead" }}
{{- end }}
{{- $ours := dict "MODE" "mode" "DEVICE" "devices" "FILTER" "filter" "OBSERVE" "observe" "RELAY_ENDPOINT" "relayEndpoint" "METRICS_ADDRPORT" "metricsPort" }}
{{- range $name, $_ := $values.settings }}
{{- with index $ours $name }}
{{- fail (printf "settings.%s: set the value `%s` instead" $name .) }}
{{- end }}
{{- end }}
{{- $ours = dict "MODE" "collector.enabled" "OBSERVE" "collector.observe" "COLLECT_ENDPOINT" "collector.ports.relay" "METRICS_ADDRPORT" "collector.ports.metrics" "OUTPUT" "collector.output" }}
{{- range $name, $_ := $values.collector.settings }}
{{- with index $ours $name }}
{{- fail (printf "collector.settings.%s: set the value `%s` instead" $name .) }}
{{- end }}
{{- end }}
{{- if eq (int $values.collector.ports.relay) (int $values.collector.ports.metrics) }}
{{- fail (printf "collector.ports: relay and metrics are both %d" (int $values.collector.ports.relay)) }}
{{- end }}
{{- if and $values.collector.enabled $values.collector.hostNetwork (ne $values.mode "none") (has (int $values.metricsPort) (list (int $values.collector.ports.relay) (int $values.collector.ports.metrics))) }}
{{- fail (printf "metricsPort %d is one of the collector's, and with collector.hostNetwork both are the node's" (int $values.metricsPort)) }}
{{- end }}
{{- if and $values.collector.hostNetwork $values.networkPolicy.enabled }}
{{- fail "networkPolicy.enabled has no effect on a pod in the node's network: with collector.hostNetwork let the nodes' firewall say who may" }}
{{- end }}
{{- if and $values.serviceMonitor.enabled (not $values.collector.enabled) }}
{{- fail "serviceMonitor.enabled is about the collector, and collector.enabled is false: podMonitor.enabled is about the nodes" }}
{{- end }}
{{- if and $values.podMonitor.enabled (eq $values.mode "none") }}
{{- fail "podMonitor.enabled is about the nodes, and mode is `none`: serviceMonitor.enabled is about the collector" }}
{{- end }}
{{- end }}
