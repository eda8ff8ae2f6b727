target "db" {
 args = { HCL = "1" }
 tags = ["hcl"]
}
target "web_app" { inherits = ["common"] }
target "common" { labels = { c = "1" } }
