#!/usr/bin/env bash
# Usage: certs.sh FOLDER. Makes a throwaway CA, and a certificate and key for each of the example's servers:
#   FOLDER/ca.crt    FOLDER/{db,mariadb,proxy}/server.{crt,key}
# What is there is kept. The CA's key is thrown away when it is done.
set -euo pipefail

folder=$1
days=825
# Who must read each key: postgres and mysql in the official images, and the proxy in ours (Dockerfile).
db_owner=999:999
proxy_owner=10432:10432

if [[ -e $folder/ca.crt ]]; then
  echo "certs: have them in $folder"
  exit
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
new_key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)

openssl req -x509 "${new_key[@]}" -days "$days" -subj '/CN=Sluicegate example CA' \
  -addext 'basicConstraints=critical,CA:TRUE' -addext 'keyUsage=critical,keyCertSign,cRLSign' \
  -keyout "$work/ca.key" -out "$work/ca.crt"

# certificate NAME OWNER ALTERNATIVE_NAMES
certificate() {
  local name=$1 owner=$2 names=$3
  openssl req "${new_key[@]}" -subj "/CN=$name" -keyout "$work/$name.key" -out "$work/$name.csr"
  openssl x509 -req -in "$work/$name.csr" -CA "$work/ca.crt" -CAkey "$work/ca.key" -CAcreateserial -days "$days" \
    -extfile <(printf 'subjectAltName=%s\nbasicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage=serverAuth\n' "$names") \
    -out "$work/$name.crt"
  install -d -m 755 "$folder/$name"
  install -m 644 "$work/$name.crt" "$folder/$name/server.crt"
  install -o "${owner%:*}" -g "${owner#*:}" -m 600 "$work/$name.key" "$folder/$name/server.key"
}
certificate db "$db_owner" 'DNS:db'
certificate mariadb "$db_owner" 'DNS:mariadb'
certificate proxy "$proxy_owner" 'DNS:proxy,DNS:localhost,IP:127.0.0.1'

# Last, since its presence says that all are there.
install -m 644 "$work/ca.crt" "$folder/ca.crt"
echo "certs: made them in $folder"
