{{/* The name of everything: the release's, with the chart's name in it. */}}
{{- define "ipvsproxy.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What the pods are selected by; it can't change without a new DaemonSet. */}}
{{- define "ipvsproxy.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "ipvsproxy.labels" -}}
{{ include "ipvsproxy.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* The labels of an object of `root`, with those that the values give it. */}}
{{- define "ipvsproxy.labelsWith" -}}
{{- merge (dict) .labels (include "ipvsproxy.labels" .root | fromYaml) | toYaml -}}
{{- end -}}

{{- define "ipvsproxy.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository (.tag | default $.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The file that the agent reads: the value `config`, without what the chart decides. */}}
{{- define "ipvsproxy.config" -}}
{{- $config := deepCopy (.Values.config | default dict) -}}
{{- range $path := keys (include "ipvsproxy.leftOut" . | fromYaml) -}}
{{- $names := splitList "." $path -}}
{{- $section := $config -}}
{{- range initial $names -}}
{{- $section = index $section . -}}
{{- end -}}
{{- $_ := unset $section (last $names) -}}
{{- end -}}
{{- $type := dict "apiVersion" "kubeproxy.config.k8s.io/v1alpha1" "kind" "KubeProxyConfiguration" -}}
{{- merge $type $config | toYaml -}}
{{- end -}}

{{/* The fields of the value `config` that the chart decides, and what it does in their place: a line of YAML for each. */}}
{{- define "ipvsproxy.leftOut" -}}
{{- with .Values.config -}}
{{- if (.clientConnection | default dict).kubeconfig }}
clientConnection.kubeconfig: the agents reach the API server as the value apiServer says
{{- end }}
{{- if .hostnameOverride }}
hostnameOverride: each agent has the name of its own Node
{{- end }}
{{- if ne (.mode | default "ipvs") "ipvs" }}
mode: the agents' mode is always ipvs
{{- end }}
{{- if and (include "ipvsproxy.metricsAtPod" $) .metricsBindAddress }}
metricsBindAddress: Prometheus asks at the pod's own IP, port 10249
{{- end }}
{{- end -}}
{{- end -}}

{{/* The fields of `written` that are not in `known`, a line with the path of each; `prefix` is where both are. */}}
{{- define "ipvsproxy.unknown" -}}
{{- range $name, $value := .written -}}
{{- $path := printf "%s%s" $.prefix $name -}}
{{- if not (hasKey $.known $name) -}}
{{- printf "%s\n" $path -}}
{{- else if and (kindIs "map" $value) (index $.known $name) -}}
{{- include "ipvsproxy.unknown" (dict "known" (index $.known $name) "written" $value "prefix" (printf "%s." $path)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The agent's own defaults for what the configuration leaves out. */}}
{{- define "ipvsproxy.healthzBindAddress" -}}
{{- (.Values.config).healthzBindAddress | default "0.0.0.0:10256" -}}
{{- end -}}

{{- define "ipvsproxy.metricsBindAddress" -}}
{{- if include "ipvsproxy.metricsAtPod" . -}}
127.0.0.1:10249
{{- else -}}
{{- (.Values.config).metricsBindAddress | default "127.0.0.1:10249" -}}
{{- end -}}
{{- end -}}

{{/* Whether a monitor needs metrics at the pod's own IP, since the configuration has them where only the node reaches them. */}}
{{- define "ipvsproxy.metricsAtPod" -}}
{{- if and (include "ipvsproxy.hasMonitor" .) (regexMatch "^($|127[.]|\\[::1\\])" ((.Values.config).metricsBindAddress | default "")) }}true{{ end -}}
{{- end -}}

{{/* Of ADDRESS:PORT, the port. */}}
{{- define "ipvsproxy.port" -}}
{{- regexFind "[0-9]+$" . -}}
{{- end -}}

{{- define "ipvsproxy.hasMonitor" -}}
{{- if or .Values.metrics.podMonitor.enabled .Values.metrics.serviceMonitor.enabled }}true{{ end -}}
{{- end -}}

{{/* A request of the kubelet to the health endpoint, which it asks at the pod's IP unless that is bound elsewhere. */}}
{{- define "ipvsproxy.probe" -}}
{{- $place := include "ipvsproxy.healthzBindAddress" .root -}}
{{- $address := trimAll "[]" (regexReplaceAll ":[0-9]+$" $place "") -}}
httpGet:
  path: {{ .path }}
  port: healthz
  {{- if not (has $address (list "0.0.0.0" "::")) }}
  host: {{ $address | quote }}
  {{- end }}
{{- end -}}

{{/* What the schema can't say, or not in words. */}}
{{- define "ipvsproxy.check" -}}
{{- with .Values.apiServer -}}
{{- if not (or .host .kubeconfig) -}}
{{- fail "apiServer.host: give the address of the API server as nodes know it, or with apiServer.kubeconfig a file on the nodes: the ClusterIP of the Service kubernetes does not work before an agent has programmed it" -}}
{{- end -}}
{{- if and .host .kubeconfig -}}
{{- fail "apiServer.kubeconfig: names the API server already; give either this or apiServer.host" -}}
{{- end -}}
{{- end -}}
{{- if and (include "ipvsproxy.hasMonitor" .) (eq ((.Values.config).metricsBindAddress | default "") "none") -}}
{{- fail "config.metricsBindAddress: Prometheus can't ask where nobody answers; leave it empty for the pod's own IP" -}}
{{- end -}}
{{- range $key := list "app.kubernetes.io/name" "app.kubernetes.io/instance" -}}
{{- if hasKey $.Values.podLabels $key -}}
{{- fail (printf "podLabels: %s is what the DaemonSet finds its pods by, and the chart's to set" $key) -}}
{{- end -}}
{{- end -}}
{{- if hasKey .Values.podAnnotations "checksum/config" -}}
{{- fail "podAnnotations: checksum/config rolls the pods when the configuration changes, and is the chart's to set" -}}
{{- end -}}
{{- range .Values.extraEnv -}}
{{- if has .name (list "NODE_NAME" "POD_IP" "KUBERNETES_SERVICE_HOST" "KUBERNETES_SERVICE_PORT") -}}
{{- fail (printf "extraEnv: %s is the chart's to set" .name) -}}
{{- end -}}
{{- end -}}
{{- range .Values.extraArgs -}}
{{- $flag := splitList "=" . | first | replace "_" "-" -}}
{{- if has $flag (list "--config" "--hostname-override" "--kubeconfig") -}}
{{- fail (printf "extraArgs: %s is the chart's to set: leave it out" $flag) -}}
{{- end -}}
{{- end -}}
{{- $healthzPort := include "ipvsproxy.port" (include "ipvsproxy.healthzBindAddress" .) -}}
{{- if eq $healthzPort (include "ipvsproxy.port" (include "ipvsproxy.metricsBindAddress" .)) -}}
{{- fail (printf "config.metricsBindAddress: the port is that of config.healthzBindAddress, %s; a pod can't have it twice" $healthzPort) -}}
{{- end -}}
{{- $name := include "ipvsproxy.name" . -}}
{{- if and .Values.metrics.serviceMonitor.enabled (not (regexMatch "^[a-z][a-z0-9-]*$" $name)) -}}
{{- fail (printf "metrics.serviceMonitor.enabled: no Service can have the name %s, which has to begin with a letter and have no dot; give the release another name, or enable metrics.podMonitor in its place" $name) -}}
{{- end -}}
{{- end -}}
