#!/bin/sh
# Makes what the TLS samples need: an authority of your own, a server's and a client's certificate, for a year.
#
#     sh serving/config/tls.sh FOLDER HOST...        HOST: every name or IPv4 address that clients call the server by
#
# ssl.config holds the server's key: keep it as a secret. ca.key signs more clients: keep it off the server.
set -eu
[ $# -ge 2 ] || { echo "usage: sh tls.sh FOLDER HOST..." >&2; exit 2; }
folder=$1
shift
[ ! -e "$folder" ] || { echo "error: $folder exists already" >&2; exit 1; }
umask 077
mkdir -p "$folder"

names=""
for host in "$@"; do
    case $host in
        *[!0-9.]*) names="$names,DNS:$host" ;;
        *) names="$names,IP:$host" ;;
    esac
done

key="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
# shellcheck disable=SC2086
openssl req -x509 $key -days 3650 -subj "/CN=keras_deartifact authority" \
    -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign,cRLSign" \
    -keyout "$folder/ca.key" -out "$folder/ca.crt"

certificate() {
    # shellcheck disable=SC2086
    openssl req $key -subj "/CN=$2" -keyout "$folder/$1.key" -out "$folder/$1.csr"
    printf '%s\n' "$3" > "$folder/$1.extensions"
    openssl x509 -req -in "$folder/$1.csr" -CA "$folder/ca.crt" -CAkey "$folder/ca.key" -CAcreateserial -days 365 \
        -extfile "$folder/$1.extensions" -out "$folder/$1.crt"
    rm "$folder/$1.csr" "$folder/$1.extensions"
}

certificate server "$1" "subjectAltName=${names#,}
extendedKeyUsage=serverAuth"
certificate client "keras_deartifact client" "extendedKeyUsage=clientAuth"

# TensorFlow Serving takes the texts themselves, not the names of files.
quoted() {
    awk '{ printf "%s\\n", $0 }' "$1"
}
cat > "$folder/ssl.config" <<CONFIG
server_key: "$(quoted "$folder/server.key")"
server_cert: "$(quoted "$folder/server.crt")"
custom_ca: "$(quoted "$folder/ca.crt")"
client_verify: true
CONFIG
